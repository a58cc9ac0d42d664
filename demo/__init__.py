"""The demo page: choose a chest radiograph, read what a model of the study says of it.

Teaching and research material, not a medical device.
"""

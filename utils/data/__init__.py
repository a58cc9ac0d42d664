"""Radiographs and their index: download, split by patient, reading, augmentation, perturbation."""

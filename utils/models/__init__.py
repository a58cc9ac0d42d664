"""Networks: backbones and their weights, architectures, export, prediction, released models."""

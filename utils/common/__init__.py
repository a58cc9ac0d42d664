"""What every notebook needs: folders, files, the study file, constants, provenance, figures."""

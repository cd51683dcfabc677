"""One backbone, measured on labeled scans."""

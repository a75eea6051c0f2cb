"""Names of the files of a report, which lie in one folder."""

REPORT_FILE, HTML_FILE = "report.json", "report.html"
"""The report for programs, and for people."""

SAMPLES_FILE, ADVERSARIAL_FILE = "samples.csv", "adversarial.npz"
"""The radii of every sample, and every adversarial example."""

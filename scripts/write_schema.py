"""Write the published JSON Schema of report.json next to the report model."""

import json
from pathlib import Path

from reports.parsing import report_schema

TARGET = Path(__file__).resolve().parent.parent / "audit" / "schema" / "report.schema.json"

if __name__ == "__main__":
    TARGET.write_text(json.dumps(report_schema(), indent=2) + "\n", encoding="utf-8")

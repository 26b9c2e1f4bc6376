"""What was measured, where, under which conditions; and what is best known."""

from resonator_hub.records.catalog import Catalog
from resonator_hub.records.records import Known, Lesson, Records

__all__ = ["Catalog", "Known", "Lesson", "Records"]

"""Pictures of the documentation: ``python -m docs.draw`` writes them into ``docs/pictures``."""

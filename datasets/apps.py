from django.apps import AppConfig


class DatasetsConfig(AppConfig):
    """What was uploaded and predicted."""

    name = "datasets"
    default_auto_field = "django.db.models.BigAutoField"

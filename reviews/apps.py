from django.apps import AppConfig


class ReviewsConfig(AppConfig):
    """What people said."""

    name = "reviews"
    default_auto_field = "django.db.models.BigAutoField"

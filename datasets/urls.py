from django.urls import path

from datasets import views

app_name = "datasets"

urlpatterns = [
    path("new/", views.new, name="new"),
    path("new/sample/", views.sample, name="sample"),
    path("new/<uuid:draft_id>/", views.draft, name="draft"),
    path("new/<uuid:draft_id>/preview", views.preview, name="preview"),
]

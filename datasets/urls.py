from django.urls import path

from datasets import backtest_views, model_views, views

app_name = "datasets"

urlpatterns = [
    path("new/", views.new, name="new"),
    path("new/sample/", views.sample, name="sample"),
    path("new/<uuid:draft_id>/", views.draft, name="draft"),
    path("new/<uuid:draft_id>/preview", views.preview, name="preview"),
    path("backtests/", backtest_views.listing, name="backtests"),
    path("backtests/<uuid:backtest_id>/", backtest_views.backtest, name="backtest"),
    path("backtests/<uuid:backtest_id>/progress", backtest_views.progress, name="backtest_progress"),
    path("backtests/<uuid:backtest_id>/delete", backtest_views.delete, name="backtest_delete"),
    path("backtests/<uuid:backtest_id>/json", backtest_views.as_json, name="backtest_json"),
    path("settings/model/", model_views.model, name="model"),
    path("settings/model/forget", model_views.forget, name="model_forget"),
]

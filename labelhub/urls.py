"""Every address of LabelHub. A test visits them all as every kind of person."""

from django.urls import include, path

from labelhub import views
from reviews.views.home import home

urlpatterns = [
    path("", home, name="home"),
    path("_light", views.light, name="light"),
    path("signin/", views.signin, name="signin"),
    path("signin/<str:token>/", views.signin_link, name="signin_link"),
    path("welcome/<str:token>/", views.welcome, name="welcome"),
    path("signout/", views.signout, name="signout"),
    path("account/", views.account, name="account"),
    path("healthz", views.healthz, name="healthz"),
    path("styleguide/", views.styleguide, name="styleguide"),
    path("", include("datasets.urls")),
    path("", include("reviews.urls")),
]

handler400 = "labelhub.views.bad_request"
handler403 = "labelhub.views.forbidden"
handler404 = "labelhub.views.not_found"
handler500 = "labelhub.views.server_error"

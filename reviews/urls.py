from django.urls import path

from reviews.views import certificates, export, guide, review, runs, savings, spot

app_name = "reviews"

urlpatterns = [
    path("d/<int:dataset_id>/", runs.overview, name="overview"),
    path("d/<int:dataset_id>/_progress", runs.progress, name="progress"),
    path("d/<int:dataset_id>/run/", runs.start, name="start"),
    path("d/<int:dataset_id>/run/<int:number>/pause", runs.pause, name="pause"),
    path("d/<int:dataset_id>/run/<int:number>/resume", runs.resume, name="resume"),
    path("d/<int:dataset_id>/run/<int:number>/cancel", runs.cancel, name="cancel"),
    path("d/<int:dataset_id>/run/<int:number>/apply", runs.apply, name="apply"),
    path("d/<int:dataset_id>/review/", review.review, name="review"),
    path("d/<int:dataset_id>/review/next", review.next_card, name="next"),
    path("d/<int:dataset_id>/review/undo", review.undo, name="undo"),
    path("d/<int:dataset_id>/items/<int:item_id>/", review.item, name="item"),
    path("d/<int:dataset_id>/items/<int:item_id>/decide", review.decide, name="decide"),
    path("d/<int:dataset_id>/items/<int:item_id>/remark", review.remark, name="remark"),
    path("d/<int:dataset_id>/items/<int:item_id>/renew", review.renew, name="renew"),
    path("d/<int:dataset_id>/savings/", savings.savings, name="savings"),
    path("d/<int:dataset_id>/savings/preview", savings.threshold_preview, name="threshold_preview"),
    path("d/<int:dataset_id>/threshold/", savings.threshold, name="threshold"),
    path("d/<int:dataset_id>/export/", export.export, name="export"),
    path("d/<int:dataset_id>/export/file/", export.file, name="file"),
    path("d/<int:dataset_id>/certificates/<int:number>/", certificates.certificate, name="certificate"),
    path(
        "d/<int:dataset_id>/certificates/<int:number>/json",
        certificates.certificate_json,
        name="certificate_json",
    ),
    path("d/<int:dataset_id>/guide/", guide.guide, name="guide"),
    path("d/<int:dataset_id>/guide/goal", guide.choose, name="goal"),
    path("d/<int:dataset_id>/guide/leave", guide.leave, name="leave"),
    path("d/<int:dataset_id>/guide/calibrate", guide.calibrate, name="calibrate"),
    path("d/<int:dataset_id>/spot/", spot.spot, name="spot"),
    path("d/<int:dataset_id>/spot/draw", spot.draw, name="draw"),
    path("d/<int:dataset_id>/spot/discard", spot.discard, name="discard"),
    path("d/<int:dataset_id>/spot/<int:sample_id>/", spot.sample, name="sample"),
    path("d/<int:dataset_id>/spot/<int:sample_id>/look", spot.look, name="look"),
    path("d/<int:dataset_id>/spot/<int:sample_id>/approve", spot.approve, name="approve"),
    path("d/<int:dataset_id>/spot/<int:sample_id>/reject", spot.reject, name="reject"),
]

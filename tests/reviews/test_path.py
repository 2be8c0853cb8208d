import time
import pytest
from reviews import path, place, tasks, thresholds, samples, queue, decisions
from datasets.models import Run
from tests.reviews.things import import_rows, things, WORDS

pytestmark = pytest.mark.django_db

def test_probe(tmp_path, boss):
    t=time.time()
    ds = import_rows(tmp_path, [r.split(",")[0] for r in things(120)])
    print("import", time.time()-t); t=time.time()
    goal = path.choose(ds, .1, None, boss)
    print(place.where(goal)); print("choose", time.time()-t); t=time.time()
    tasks.work_here(ds.runs.get())
    print("run1", time.time()-t); t=time.time()
    path.advance(ds.pk)
    print(place.where(goal)); 
    sample = thresholds.open_sample(ds)
    labels={l.name:l for l in ds.labels.all()}
    t=time.time()
    while (c := queue.claim_drawn(ds, boss, "b", sample)):
        n = "fruit" if any(w in c.item.text for w in WORDS["fruit"]) else "tool"
        decisions.decide(c.item, boss, "label", labels[n])
    samples.close_when_answered(sample)
    print("answers", time.time()-t); t=time.time()
    path.advance(ds.pk)
    run = Run.objects.active().get()
    tasks.work_here(run)
    print("round", time.time()-t); t=time.time()
    path.advance(ds.pk)
    print(place.where(goal)); print("adv", time.time()-t)
    from tests.reviews.scenario import count_statements
    from django.db import connection
    from django.test.utils import CaptureQueriesContext
    with CaptureQueriesContext(connection) as c: path.advance(ds.pk)
    for q in c: print(q["sql"][:300])
    with CaptureQueriesContext(connection) as c: place.where(goal)
    print(len(c))

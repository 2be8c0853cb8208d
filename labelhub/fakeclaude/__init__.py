"""The Messages API on this machine: answers recorded in a file, the API's errors and faults on demand, no money.

replay.py      a file of recorded labels, found again by the text
catalogue.py   the models that it says it has
check.py       what the API would refuse, refused
answers.py     the items of a request, answered, and spoiled where a fault says so
usage.py       tokens and the prompt cache, counted in bytes
faults.py      which call goes wrong, and how
batches.py     message batches, worked off in the background
counts.py      what has been asked and answered so far
server.py      HTTP around all of it: ``serve(replay)``
"""

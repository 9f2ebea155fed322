"""Shared models, objectives, estimators and pages of *Learning Without Labels*.

One file holds one idea. Read from the ground floor up: ``data`` holds image sets,
``nets`` builds networks, ``train`` runs the loop and ``optim`` makes its steps. Each
family of models has a file of its own that takes its networks as arguments.
``evaluate`` and ``latent`` score what was trained without knowing how. ``code``,
``commits`` and ``files`` know files only.

``report`` is a chapter's frame: what a run measured and how a page tells it. ``site``
makes pages of told notebooks.
"""

"""Shared models, objectives, estimators and pages of *Learning Without Labels*.

One file holds one idea. Read from the ground floor up. ``data`` holds image sets and
``views`` makes random views of their images. ``train`` runs the loop, ``optim`` makes
its steps, ``checkpoint`` keeps its state and ``nets`` builds networks. ``vae``,
``autodecoder``, ``likelihood``, ``gan``, ``wgan``, ``simsiam`` and ``unmix`` hold one
family's objectives each and take their networks as arguments. ``evaluate`` scores what
was trained without knowing how.

``report`` is a chapter's frame: what a run measured and how a page tells it. ``site``
makes pages of executed notebooks. ``files`` serves all of them.
"""

"""Shared models, objectives, estimators and plots of the book *Learning Without
Labels*.

One file holds one idea. Read from the ground floor up: ``data``, ``train`` and ``nets``
know nothing of each other's insides; ``vae``, ``autodecoder``, ``likelihood``, ``gan``,
``wgan``, ``simsiam`` and ``unmix`` hold one family's objectives each and take their
networks as arguments; ``evaluate`` scores what was trained without knowing how;
``plots`` draws arrays and ``explorer`` makes pictures that answer; ``chapter`` checks a
chapter's parameters and records its numbers; ``book``, ``published`` and ``offline``
make pages of executed notebooks; ``files`` and ``embed`` serve the others.
"""

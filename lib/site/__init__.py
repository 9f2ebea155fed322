"""Pages: telling cells executed on results, and what Jupyter Book makes of them.

Knows files, not torch.
"""

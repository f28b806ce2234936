"""Do images show what their prompts ask for? CLIPScore and PickScore, prompt by prompt.

judges ─▶ measure ─▶ record ─▶ comparison of two records by a paired bootstrap
"""

"""Turn any source of images into shards with an index, cleaned once for all trainings.

work_units ─▶ images ─▶ parts ─▶ duplicates ─▶ assembly ─▶ report ─▶ report_page
"""

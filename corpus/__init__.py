"""What text is: sources and their formats, normalising, document parts, cuts, tokenisers and token shards.

Plain functions on files and Arrow tables. This room knows no stage, no output folder and no orchestrator.
"""

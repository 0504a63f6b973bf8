"""The central host's end of the hop: what a forced command of ssh lets a host's key do.

Starts with each connection, so nothing here imports boto3, NumPy or YAML.
"""

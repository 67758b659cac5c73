"""What `etcdutl` does to files: snapshots, and databases of members that are stopped.

Import the modules: each is imported only by the command that needs it.
"""

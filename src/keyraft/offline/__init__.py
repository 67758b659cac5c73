"""What `etcdutl` does to files at rest: snapshots, databases of members that are stopped.

Import the modules: each is imported only by the command that needs it.
"""

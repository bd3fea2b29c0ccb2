"""Object stores, S3 and Google Cloud Storage: names, connections, requests that are tried again, objects as files."""

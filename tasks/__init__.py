"""Under Prefect: batches of parts as task runs with Prefect's retries, progress and artifacts. No algorithms."""

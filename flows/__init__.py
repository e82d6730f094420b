"""When things happen: one thin Prefect flow a stage, the pipeline that chains them, and the command line."""

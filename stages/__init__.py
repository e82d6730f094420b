"""What a stage is: its configuration, inputs, units of work, and how they become one output. Knows no Prefect."""

"""What Prefect runs and shows: each module reads as the story of one job."""

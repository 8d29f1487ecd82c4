"""What each view of the page answers, as plain functions that no page is needed to call."""

"""The world of the passengers of a ride-hailing service, and what each is truly worth."""

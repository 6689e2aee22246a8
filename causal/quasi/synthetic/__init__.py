"""The numbers behind synthetic control and synthetic difference in differences."""

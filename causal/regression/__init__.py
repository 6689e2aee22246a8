"""The general linear regression: columns, moments, errors, leverage."""

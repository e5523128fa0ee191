"""The programs that sarrapipe is measured against."""

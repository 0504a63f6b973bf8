"""Where everything slow to make is kept between runs, outside the checkout."""

from release.wheels import cache_directory, exclusive_lock

__all__ = ["cache_directory", "exclusive_lock"]

"""Sites: boxes behind a broker of their own, which a bridge joins to the hub's."""

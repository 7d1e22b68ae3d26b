"""The data plane's API: JSON and Arrow over the read path, behind the HTTP front end's one seam."""

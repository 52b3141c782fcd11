"""What runs Rakkan: the local stack, the broker definitions, the migrations, the manifests. Not part of any room."""

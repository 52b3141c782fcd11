"""Signature activation module: may this key sign exactly this, now? (EN 419 241-2)"""

"""Published networks that timm cannot express, one file each, of timm's layers."""

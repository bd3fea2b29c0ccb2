"""What a bundle says of recordings as users have them: quieter, in codecs, on the telephone, in noise, in rooms."""

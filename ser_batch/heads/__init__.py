"""Labels of one's own: a classifier fitted to what a bundle gives for a few hundred labelled recordings, in numpy."""

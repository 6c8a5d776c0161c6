"""A small world of drawn scenes in the benchmarks' own file formats, so that everything runs without downloads.

`scenes` decides what is in a scene, `drawing` paints it, `language` speaks about it, `tagging` sees it imperfectly,
`writing` puts it all into files.
"""

"""A small world of drawn scenes in the file formats of the benchmarks, so that everything runs without downloads.

`scenes` draws the content of a scene, `drawing` paints it, `language`, `questions` and `expressions` describe it,
`tagging` simulates a tagger, `entries` combines these, and `writing` writes the files. `backbones` pre-trains tiny
models on such scenes.
"""

"""The whole evaluation as one run that can be made again: ``reco eval study``.

::

    StudyConfig --prepare--> Study --run_study--> one file per section --> findings.json
    (config.py)              (study.py)           (sections/)              (evaluate.findings)
"""

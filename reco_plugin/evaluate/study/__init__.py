"""The whole evaluation as one reproducible run: ``reco eval study``.

::

    StudyConfig --prepare--> Study --run_study--> one file per section --> findings.json
    (config.py)              (study.py)           (sections/)              (evaluate.findings)
"""

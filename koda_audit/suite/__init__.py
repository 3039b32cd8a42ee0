"""From one YAML file to a report: schema, plan, run. The only room that knows tasks, report and gates together.

``schema``    what a suite may say
``load``      a checked suite from a file, or all of its faults at once
``names``     what the names in a suite stand for: models, files, operators
``sources``   whether models and data are still those that were embedded, without loading any of them
``plan``      the cells of a suite, and which of them are done
``cells``     finished cells on disk
``work``      what each kind of cell computes (the only module here that imports torch)
``run``       all cells of a plan, their results as one report
``cost``      what is left to do, for a reader
"""

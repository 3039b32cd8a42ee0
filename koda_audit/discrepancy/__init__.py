"""What one model holds together and another one does not, on the same samples.

``find``       from two models' embeddings to groups of samples
``choices``    whether what is asked can be done, and by which path
``search``     the directions, and all that groups are judged by
``paths``      three ways to the same directions
``pool``       the samples on which groups are tested
``turn``       a span of directions turned until each has its weight on few samples
``groups``     from a column over the samples to a group of them
``stability``  whether groups come back on random halves, and how many directions show most that do
``read``       how many directions are turned together, and the groups of them
``findings``   which groups are findings
``describe``   what a reader wants to know of each group, and in which order
``shares``     what images and texts add to a group's excess
``quality``    what the models can still do on a group, and what they answer there
``witness``    whether anything else says that the samples of a group belong together
``agreement``  whether groups are clusters under each model
``themes``     the words that set the captions of a group apart
``views``      figures; ``layout`` says where the samples of a map lie, ``points`` what it starts from
``result``     what is returned, and its files
``memory``     whether a path's matrices fit, before any is made
"""

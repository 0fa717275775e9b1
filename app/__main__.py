import gc

gc.disable()  # What is imported stays, and looking for rubbish in it takes a fifth of the time to start.
from app.cli.commands import main  # noqa: E402

gc.enable()
main()

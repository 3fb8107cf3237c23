from openbat.cli import main

main()

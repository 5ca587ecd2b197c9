select doc from installation
